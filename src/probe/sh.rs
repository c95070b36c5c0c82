//! The POSIX sh dialect: questions written out as one script, its output read back.
