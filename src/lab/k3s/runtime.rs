//! The files K3s writes for containerd and the kubelet at every start.

use std::path::Path;

use super::settings::Settings;
use super::{Failure, files};

/// Where K3s looks for the NVIDIA runtime, first match first.
const NVIDIA: &[&str] =
    &["/usr/local/nvidia/toolkit/nvidia-container-runtime", "/usr/bin/nvidia-container-runtime"];

/// Writes containerd's configuration, with the runtimes that are there now, and the kubelet's defaults.
pub fn write(settings: &Settings, data: &Path) -> Result<(), Failure> {
    let folder = data.join("agent/etc/containerd");
    files::make_folder(&folder.join("config-v3.toml.d"), 0o700)?;
    files::make_folder(&data.join("agent/containerd"), 0o700)?;
    files::make_folder(&data.join("agent/etc/kubelet.conf.d"), 0o700)?;
    files::make_folder(&settings.path("/run/k3s/containerd"), 0o711)?;
    let mut text = String::from(
        "# Simulated: no containerd reads this file. K3s generates it at every start.\nversion = 3\nimports = \
         [\"config-v3.toml.d/*.toml\"]\n\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  \
         runtime_type = \"io.containerd.runc.v2\"\n",
    );
    if let Some(path) = NVIDIA.iter().find(|path| settings.path(path).exists()) {
        text += &format!(
            "\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia']\n  runtime_type = \
             \"io.containerd.runc.v2\"\n\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'nvidia'.options]\n  \
             BinaryName = \"{path}\"\n"
        );
    }
    files::write(&folder.join("config.toml"), &text, 0o600)?;
    let defaults =
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: systemd\n";
    files::write(&data.join("agent/etc/kubelet.conf.d/00-k3s-defaults.conf"), defaults, 0o600)
}
