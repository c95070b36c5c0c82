//! Levers for rehearsals of failures: files below `/etc/datahub-lab.d` on the first server, looked at every second.
//!
//! A file holds rules, one a line; what follows `#` is a comment. A rule is words, the last of which takes the rest
//! of the line. Names may hold `*`. Without a file, or without rules, nothing fails; what a rule broke heals when it
//! goes, except where reality would not (see [`CHART_FAILS`]).
//!
//! | file | a rule | what it does |
//! |---|---|---|
//! | [`CHART_UNAVAILABLE`] | `RELEASE [MESSAGE]` | Helm cannot fetch the chart: its Job fails, no release is left |
//! | [`CHART_FAILS`] | `RELEASE [MESSAGE]` | Helm fails half-way and leaves a failed release, which the failure policy `abort` never touches again |
//! | [`DEFINITION_MISSING`] | `DEFINITION` | a chart does not bring this custom resource definition |
//! | [`DEFINITION_UNESTABLISHED`] | `DEFINITION` | it is there and never established |
//! | [`APP_DEGRADED`] | `APP KIND/NAME MESSAGE` | a resource of the application is Degraded, and so is the application |
//! | [`APP_COMPARISON_ERROR`] | `APP MESSAGE` | Argo CD cannot load what is wanted |
//! | [`APP_SYNC_FAILS`] | `APP KIND/NAME MESSAGE` | the sync fails on a resource, with every retry |
//!
//! `RELEASE` is a HelmChart's name, `DEFINITION` one as `certificates.cert-manager.io`, `APP` an Application's name
//! or `<namespace>/<name>`.
//!
//! Besides: [`NEVER_READY`](super::NEVER_READY) on any node, and an image whose name holds `never-ready`.

use super::settings::Settings;

/// A chart that cannot be fetched.
pub const CHART_UNAVAILABLE: &str = "/etc/datahub-lab.d/k3s-chart-unavailable";
/// A chart whose installation or upgrade fails half-way. As with klipper-helm, a release that failed under `abort`
/// stays so, rule or no rule, until its Secret is deleted or the policy is another one.
pub const CHART_FAILS: &str = "/etc/datahub-lab.d/k3s-chart-fails";
/// A custom resource definition that a chart does not make.
pub const DEFINITION_MISSING: &str = "/etc/datahub-lab.d/k3s-definition-missing";
/// A custom resource definition that never gets established.
pub const DEFINITION_UNESTABLISHED: &str = "/etc/datahub-lab.d/k3s-definition-unestablished";
/// An application with a resource that is Degraded.
pub const APP_DEGRADED: &str = "/etc/datahub-lab.d/argocd-degraded";
/// An application whose manifests cannot be made.
pub const APP_COMPARISON_ERROR: &str = "/etc/datahub-lab.d/argocd-comparison-error";
/// An application whose sync fails.
pub const APP_SYNC_FAILS: &str = "/etc/datahub-lab.d/argocd-sync-fails";

/// The rest of the rule for a name, if a file has one for it; the first that matches counts.
pub fn rule(settings: &Settings, lever: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(settings.path(lever)).ok()?;
    find(&text, name)
}

/// The same for an Application, which a rule may name with its namespace.
pub fn app_rule(settings: &Settings, lever: &str, namespace: &str, name: &str) -> Option<String> {
    rule(settings, lever, name).or_else(|| rule(settings, lever, &format!("{namespace}/{name}")))
}

fn find(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split('#').next())
        .filter_map(|line| split(line.trim()))
        .find(|(pattern, _)| super::glob::matches(pattern, name, None))
        .map(|(_, rest)| rest.to_owned())
}

/// The first word and the rest of a line that has words.
pub fn split(line: &str) -> Option<(&str, &str)> {
    match line.split_once(char::is_whitespace) {
        Some((first, rest)) => Some((first, rest.trim())),
        None => (!line.is_empty()).then_some((line, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_name() {
        let text =
            "# nothing\n\ncert-manager  no such host # today\n*.longhorn.io\n argo/web Job/x  it broke \n";
        let cases = [
            ("cert-manager", Some("no such host")),
            ("nodes.longhorn.io", Some("")),
            ("argo/web", Some("Job/x  it broke")),
            ("web", None),
            ("nothing", None),
        ];
        for (name, wanted) in cases {
            assert_eq!(find(text, name).as_deref(), wanted, "{name}");
        }
        assert_eq!(split("Job/x  it broke"), Some(("Job/x", "it broke")));
    }
}
