//! Throw-away machines on this computer.
