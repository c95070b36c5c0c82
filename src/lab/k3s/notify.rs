//! What systemd is told (`Type=notify`): `READY=1` once the node serves, `STOPPING=1` at the end.
//!
//! Without `NOTIFY_SOCKET` nothing is told.

use sd_notify::NotifyState;

use super::log;

/// The node serves: `systemctl start` returns.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// The node ends.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        log::warn(format!("cannot tell systemd: {error}"));
    }
}
