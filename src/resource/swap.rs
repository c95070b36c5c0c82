//! `swap`: no swap, now and after every boot.

use std::time::Duration;

use serde::Deserialize;

use super::fstab;
use super::{Change, Difference, Resource, Verdict, edit};
use crate::probe::{Answers, Question, Unanswered};
use crate::shell::quote;

/// Swap switched off, by every way Debian and the images for small boards switch it on: lines of /etc/fstab are
/// commented out (and marked, so that they can be had back); `swap.target` is masked, which keeps systemd's `.swap`
/// units from being started, those that generators make from partition tables and for zram included; services that
/// set up swap by themselves (zramswap, zram-config, dphys-swapfile) are disabled, and Armbian's and Orange Pi's
/// zram service is told to leave swap out. In a container the active areas are its host's and are left alone, with a note.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    /// `off` is the only state.
    #[allow(dead_code, reason = "read to insist that it is given")]
    state: State,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Off,
}

/// Services that call swapon themselves.
const SERVICES: &[&str] = &["dphys-swapfile.service", "zram-config.service", "zramswap.service"];

/// Settings of the boards' zram services, which serve /var/log as well and so are not disabled.
const ZRAM_SETTINGS: &[&str] = &["/etc/default/armbian-zram-config", "/etc/default/orangepi-zram-config"];

const TARGET: &str = "swap.target";

/// What a line of fstab is commented out with.
const MARK: &str = "# datahub, swap off: ";

/// Paging everything in again from a slow disk takes its time.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

fn without_swap(text: &str) -> String {
    let mut changed = false;
    let lines: Vec<String> = fstab::lines(text)
        .map(|(line, entry)| {
            if entry.is_some_and(|e| e.fstype == "swap") {
                changed = true;
                format!("{MARK}{line}")
            } else {
                line.to_owned()
            }
        })
        .collect();
    if changed { edit::join(&lines) } else { text.to_owned() }
}

/// The file is sourced by a shell: the last assignment counts.
fn zram_without_swap(text: &str) -> String {
    let swap = |line: &&str| line.trim_start().starts_with("SWAP=");
    if text.lines().rfind(swap).is_some_and(|line| line.trim() == "SWAP=false") {
        return text.to_owned();
    }
    let others: Vec<&str> = text.lines().filter(|line| !swap(line)).chain(["SWAP=false"]).collect();
    edit::join(&others)
}

fn service(name: &str, seen: &Answers) -> Result<Verdict, Unanswered> {
    let unit = seen.unit(name)?;
    let enabled = unit.enabled.starts_with("enabled");
    if unit.load != "loaded" || !(enabled || unit.active == "active") {
        return Ok(Verdict::Converged);
    }
    let before = if enabled { &unit.enabled } else { &unit.active };
    Ok(Verdict::Differs(Change::new(
        vec![Difference::value(name, Some(before), Some("disabled"))],
        format!("systemctl disable --now -- {} || exit 1\n", quote(name)),
    )))
}

fn target(seen: &Answers) -> Result<Verdict, Unanswered> {
    Ok(match seen.unit(TARGET)?.load.as_str() {
        "masked" | "not-found" => Verdict::Converged,
        _ => Verdict::Differs(Change::new(
            vec![Difference::value(TARGET, Some("not masked"), Some("masked"))],
            format!("systemctl mask -- {TARGET} || exit 1\n"),
        )),
    })
}

fn live(seen: &Answers) -> Result<Verdict, Unanswered> {
    let areas = seen.swaps()?;
    if areas.is_empty() || seen.facts.container {
        return Ok(Verdict::Converged);
    }
    let differences = areas
        .iter()
        .map(|area| Difference::value(format!("swap area {area}"), Some("active"), None))
        .collect();
    let off =
        "swapoff -a || { echo 'swap is still on; is there memory enough for what is in it?' >&2; exit 1; }\n";
    Ok(Verdict::Differs(Change::new(differences, off).long(PATIENCE)))
}

impl Resource for Swap {
    fn name(&self) -> String {
        "off".into()
    }

    fn questions(&self) -> Vec<Question> {
        let mut questions = vec![Question::Swaps];
        for path in ZRAM_SETTINGS.iter().chain([&fstab::PATH]) {
            questions.extend(edit::questions(path));
        }
        questions.extend(SERVICES.iter().chain([&TARGET]).map(|unit| Question::Unit((*unit).into())));
        questions
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        // What lasts comes first: if memory is too short to switch swap off now, a reboot does it.
        let mut parts = vec![
            edit::diff(fstab::PATH, false, seen, |text| Ok(without_swap(text)))?.followed_by(fstab::RELOAD),
        ];
        for path in ZRAM_SETTINGS {
            if seen.stat(path)?.is_some() {
                parts.push(edit::diff(path, false, seen, |text| Ok(zram_without_swap(text)))?);
            }
        }
        parts.push(target(seen)?);
        for name in SERVICES {
            parts.push(service(name, seen)?);
        }
        parts.push(live(seen)?);
        Ok(Verdict::all(parts))
    }

    fn notes(&self, seen: &Answers) -> Vec<String> {
        let areas = match seen.swaps() {
            Ok(areas) if !areas.is_empty() => areas.join(", "),
            _ => return Vec::new(),
        };
        if seen.facts.container {
            vec![format!("{areas}: active on the container's host, and only it can switch that off")]
        } else if seen.facts.wsl {
            vec![
                "WSL switches swap on at every start: set `swap=0` under [wsl2] in .wslconfig on Windows too"
                    .into(),
            ]
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Content, Facts, Unit};
    use crate::resource::testing::{TextFile, build, mistake, run_as_me, seen_text};

    const FSTAB: &str = "UUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n/swapfile swap swap defaults\n";
    const ARMBIAN: &str = ZRAM_SETTINGS[0];

    /// A machine without any of it.
    fn seen(facts: Facts, table: &str) -> Answers {
        let mut seen = seen_text(fstab::PATH, Content::Differs(table.as_bytes().to_vec()), 0o644);
        seen.facts = facts;
        let unit = |load: &str| Answer::Unit(Unit { load: load.into(), ..Unit::default() });
        for path in ZRAM_SETTINGS {
            let [stat, content] = edit::questions(path).try_into().unwrap();
            seen.insert(stat, Answer::Stat(None));
            seen.insert(content, Answer::Content(Content::Absent));
        }
        for name in SERVICES {
            seen.insert(Question::Unit((*name).into()), unit("not-found"));
        }
        seen.with(Question::Unit(TARGET.into()), unit("masked"))
            .with(Question::Swaps, Answer::Swaps(Vec::new()))
    }

    fn change(seen: &Answers) -> Option<Change> {
        match build("swap", "state = 'off'").diff(seen).unwrap() {
            Verdict::Converged => None,
            Verdict::Differs(change) => Some(change),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn diffs_as_data() {
        let off = without_swap(FSTAB);
        assert_eq!(change(&seen(Facts::default(), &off)), None);
        assert_eq!(change(&seen(Facts::default(), "")), None);

        let area = Answer::Swaps(vec!["/dev/sda3".into(), "/swap file".into()]);
        let unit = |enabled: &str, active: &str| {
            let unit = Unit {
                load: "loaded".into(),
                enabled: enabled.into(),
                active: active.into(),
                ..Unit::default()
            };
            Answer::Unit(unit)
        };
        let zramswap = Question::Unit("zramswap.service".into());
        // what is seen beside a clean machine; the script's part; how many differences
        let cases = [
            (Question::Swaps, area.clone(), "swapoff -a", 2),
            (zramswap.clone(), unit("enabled", "active"), "disable --now -- zramswap.service", 1),
            (zramswap.clone(), unit("disabled", "active"), "disable --now -- zramswap.service", 1),
            (zramswap, unit("disabled", "inactive"), "", 0),
            (Question::Unit(TARGET.into()), unit("static", "active"), "mask -- swap.target", 1),
        ];
        for (question, answer, part, count) in cases {
            let seen = seen(Facts::default(), &off).with(question.clone(), answer);
            match change(&seen) {
                None => assert_eq!(count, 0, "{question:?}"),
                Some(change) => {
                    assert_eq!(change.differences.len(), count, "{question:?}");
                    assert!(change.shell.contains(part), "{question:?}: {}", change.shell);
                }
            }
            assert!(build("swap", "state = 'off'").notes(&seen).is_empty());
        }

        let container = Facts { container: true, ..Facts::default() };
        let seen = seen(container, &off).with(Question::Swaps, area);
        assert_eq!(change(&seen), None);
        assert!(build("swap", "state = 'off'").notes(&seen)[0].contains("/dev/sda3, /swap file: active on"));
    }

    #[test]
    fn edits_as_data() {
        let off = without_swap(FSTAB);
        assert_eq!(
            off,
            "UUID=1 / ext4 defaults 0 1\n# datahub, swap off: UUID=2 none swap sw 0 0\n\
             # datahub, swap off: /swapfile swap swap defaults\n"
        );
        assert_eq!(without_swap(&off), off);
        for (before, after) in [
            ("ENABLED=true\n# SWAP=false\n", "ENABLED=true\n# SWAP=false\nSWAP=false\n"),
            ("SWAP=true\nENABLED=true\n", "ENABLED=true\nSWAP=false\n"),
            ("SWAP=false\nENABLED=true\n", "SWAP=false\nENABLED=true\n"),
        ] {
            assert_eq!(zram_without_swap(before), after);
            assert_eq!(zram_without_swap(after), after);
        }
        let text = Answer::Content(Content::Differs(b"SWAP=true\n".to_vec()));
        let [stat, content] = edit::questions(ARMBIAN).try_into().unwrap();
        let file = crate::resource::testing::stat(crate::probe::FileType::File, 0o644);
        let seen = seen(Facts::default(), &off).with(stat, Answer::Stat(Some(file))).with(content, text);
        assert_eq!(change(&seen).unwrap().differences.len(), 1);
    }

    #[test]
    fn the_shell_changes_the_table_before_it_switches_off() {
        let place = TextFile::with(FSTAB, 0o644);
        let seen =
            seen(Facts::default(), FSTAB).with(Question::Swaps, Answer::Swaps(vec!["/swapfile".into()]));
        let shell = change(&seen).unwrap().shell.replace(
            "path=/etc/fstab folder=/etc",
            &format!("path={} folder={}", place.path(), place.folder().display()),
        );
        let log = place.folder().join("log");
        let stand_in = |status| {
            format!(
                "systemctl() {{ :; }}\nswapoff() {{ echo \"$@\" >>{}; return {status}; }}\n",
                log.display()
            )
        };
        let error = run_as_me(&format!("{}{shell}", stand_in(1))).unwrap_err();
        assert!(error.contains("memory enough"), "{error}");
        assert_eq!(place.read(), without_swap(FSTAB));
        run_as_me(&format!("{}{shell}", stand_in(0))).expect("twice is harmless");
        assert_eq!(std::fs::read_to_string(log).unwrap(), "-a\n-a\n");
    }

    #[test]
    fn mistakes_are_found_offline() {
        assert!(mistake("swap", "").contains("missing field `state`"));
        assert!(mistake("swap", "state = 'on'").contains("expected `off`"));
    }
}
