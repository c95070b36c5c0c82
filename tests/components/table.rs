//! The charts that the shipped inventory's components install.

/// Every chart: release, chart, repository, version, namespace.
pub const TABLE: &[[&str; 5]] = &[
    ["cert-manager", "cert-manager", "https://charts.jetstack.io", "v1.21.1", "security"],
    [
        "external-dns",
        "external-dns",
        "https://kubernetes-sigs.github.io/external-dns",
        "1.21.1",
        "kube-system",
    ],
    ["reflector", "reflector", "https://emberstack.github.io/helm-charts", "10.0.65", "kube-system"],
    ["reloader", "reloader", "https://stakater.github.io/stakater-charts", "2.2.16", "kube-system"],
    ["traefik", "traefik", "https://traefik.github.io/charts", "41.2.0", "kube-system"],
    ["dex", "dex", "https://charts.dexidp.io", "0.24.1", "security"],
    ["oauth2-proxy", "oauth2-proxy", "https://oauth2-proxy.github.io/manifests", "10.7.0", "security"],
    ["external-secrets", "external-secrets", "https://charts.external-secrets.io", "2.9.0", "security"],
    ["longhorn", "longhorn", "https://charts.longhorn.io", "1.12.1", "kube-system"],
    ["snapshot-controller", "snapshot-controller", "https://piraeus.io/helm-charts", "5.2.0", "kube-system"],
    [
        "nfs-subdir-external-provisioner",
        "nfs-subdir-external-provisioner",
        "https://kubernetes-sigs.github.io/nfs-subdir-external-provisioner",
        "4.0.18",
        "kube-system",
    ],
    ["argo-cd", "argo-cd", "https://argoproj.github.io/argo-helm", "10.4.0", "automation"],
    [
        "nvidia-device-plugin",
        "nvidia-device-plugin",
        "https://nvidia.github.io/k8s-device-plugin",
        "0.19.3",
        "kube-system",
    ],
];
