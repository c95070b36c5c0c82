//! The engine: plans become converged nodes. Emits [`event::Event`]s and never prints.

pub mod event;
