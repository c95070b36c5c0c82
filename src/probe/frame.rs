//! Frames: every answer comes as `id status length` and that many bytes, so nothing a node prints can be taken for another answer.
