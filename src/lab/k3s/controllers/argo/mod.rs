//! Argo CD.

use super::Tools;

pub fn step(_tools: &Tools<'_>) {}
