//! `timezone`: the machine's time zone.

use serde::Deserialize;

use super::edit;
use super::link::Link;
use super::{Resource, Verdict};
use crate::probe::{Answers, FileType, Question, Unanswered};

const LOCALTIME: &str = "/etc/localtime";
/// Debian up to 12 and Ubuntu keep the name here too, and tzdata's upgrades read it.
const TIMEZONE: &str = "/etc/timezone";

/// The time zone: the link /etc/localtime, and /etc/timezone where that exists. timedatectl is not used: in a
/// container it can reach the host's clock. What already runs (cron, for one) keeps the old zone until it is
/// restarted, by a handler. Unknown while tzdata is not installed; a zone that tzdata does not have is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timezone {
    /// A name below /usr/share/zoneinfo: `Etc/UTC`, `Europe/Madrid`. Debian 13 has old names, as `US/Pacific`, in the
    /// package tzdata-legacy.
    pub name: String,
}

impl Timezone {
    fn zone_path(&self) -> String {
        format!("/usr/share/zoneinfo/{}", self.name)
    }

    /// A copy of a zone's file, the way before links, is replaced: it holds nothing that is not in tzdata.
    fn link(&self) -> Link {
        Link { path: LOCALTIME.into(), target: self.zone_path(), force: true }
    }

    /// Why the zone cannot be set, if it cannot.
    fn missing(&self, seen: &Answers) -> Result<Option<Verdict>, Unanswered> {
        let zone = seen.stat(&self.zone_path())?;
        Ok(match zone.as_ref().map(|stat| stat.file_type) {
            Some(FileType::File | FileType::Link) => None,
            None if !seen.package("tzdata")?.installed => {
                Some(Verdict::Unknown("tzdata is not installed yet; install it with `package` first".into()))
            }
            _ => Some(Verdict::Refused(format!(
                "tzdata knows no time zone {}; `timedatectl list-timezones` lists them (old names are in the package \
                 tzdata-legacy)",
                self.name
            ))),
        })
    }

    fn localtime(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        // systemd makes the link relative, tzdata absolute.
        let relative = format!("..{}", self.zone_path());
        match seen.stat(LOCALTIME)? {
            Some(stat) if stat.file_type == FileType::Link && stat.target == relative => {
                Ok(Verdict::Converged)
            }
            _ => self.link().diff(seen),
        }
    }

    fn timezone(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        if seen.stat(TIMEZONE)?.is_none() {
            return Ok(Verdict::Converged);
        }
        edit::diff(TIMEZONE, false, seen, |text| {
            Ok(if text.trim() == self.name { text.to_owned() } else { format!("{}\n", self.name) })
        })
    }
}

impl Resource for Timezone {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn questions(&self) -> Vec<Question> {
        let mut questions = self.link().questions();
        questions.extend(edit::questions(TIMEZONE));
        questions.extend([Question::Stat(self.zone_path()), Question::Package("tzdata".into())]);
        questions
    }

    fn diff(&self, seen: &Answers) -> Result<Verdict, Unanswered> {
        match self.missing(seen)? {
            Some(verdict) => Ok(verdict),
            None => Ok(Verdict::all([self.localtime(seen)?, self.timezone(seen)?])),
        }
    }

    fn notes(&self, seen: &Answers) -> Vec<String> {
        match (seen.facts.wsl, self.localtime(seen)) {
            (true, Ok(Verdict::Differs(_))) => vec![
                "WSL takes the zone from Windows at every start: set `useWindowsTimezone = false` under [time] in \
                 /etc/wsl.conf too"
                    .into(),
            ],
            _ => Vec::new(),
        }
    }

    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-+".contains(c);
        if !self.name.split('/').all(|part| !part.is_empty() && part.chars().all(plain)) {
            return Err(format!("name {:?} is not a time zone's name, as \"Etc/UTC\"", self.name));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Answer, Content, Facts, Package, Stat};
    use crate::resource::testing::{TextFile, build, mistake, run_as_me, stat};

    fn link_to(target: &str) -> Option<Stat> {
        Some(Stat { target: target.into(), ..stat(FileType::Link, 0o777) })
    }

    fn seen(localtime: Option<Stat>, timezone: Option<&str>, zone: Option<Stat>, tzdata: bool) -> Answers {
        let text = timezone.map(|_| stat(FileType::File, 0o644));
        let content = timezone.map_or(Content::Absent, |text| Content::Differs(text.as_bytes().to_vec()));
        Answers::new(Facts::default())
            .with(Question::Stat(LOCALTIME.into()), Answer::Stat(localtime))
            .with(Question::Stat(TIMEZONE.into()), Answer::Stat(text))
            .with(
                Question::Content { path: TIMEZONE.into(), unless: String::new() },
                Answer::Content(content),
            )
            .with(Question::Stat("/usr/share/zoneinfo/Europe/Madrid".into()), Answer::Stat(zone))
            .with(
                Question::Package("tzdata".into()),
                Answer::Package(Package { installed: tzdata, ..Package::default() }),
            )
    }

    #[test]
    fn diffs_as_data() {
        let timezone = build("timezone", "name = 'Europe/Madrid'");
        let right = || link_to("/usr/share/zoneinfo/Europe/Madrid");
        let file = || Some(stat(FileType::File, 0o644));
        // /etc/localtime, /etc/timezone, the zone's file, tzdata installed; differences, or a part of the reason
        type Case = (Option<Stat>, Option<&'static str>, Option<Stat>, bool, Result<usize, &'static str>);
        let cases: Vec<Case> = vec![
            (right(), Some("Europe/Madrid\n"), file(), true, Ok(0)),
            (link_to("../usr/share/zoneinfo/Europe/Madrid"), None, link_to("x"), true, Ok(0)),
            (right(), Some("Etc/UTC\n"), file(), true, Ok(1)),
            (link_to("/usr/share/zoneinfo/Etc/UTC"), Some("Etc/UTC\n"), file(), true, Ok(2)),
            (file(), None, file(), true, Ok(1)),
            (None, None, file(), true, Ok(1)),
            (None, None, None, false, Err("not installed yet")),
            (None, None, None, true, Err("no time zone Europe/Madrid")),
            (None, None, Some(stat(FileType::Directory, 0o755)), true, Err("no time zone Europe/Madrid")),
        ];
        for (localtime, text, zone, tzdata, wanted) in cases {
            let label = format!("{localtime:?} {text:?} {zone:?}");
            match (timezone.diff(&seen(localtime, text, zone, tzdata)).unwrap(), wanted) {
                (Verdict::Converged, Ok(count)) => assert_eq!(count, 0, "{label}"),
                (Verdict::Differs(change), Ok(count)) => {
                    assert_eq!(change.differences.len(), count, "{label}")
                }
                (Verdict::Refused(why) | Verdict::Unknown(why), Err(part)) => {
                    assert!(why.contains(part), "{label}: {why}");
                }
                (verdict, _) => panic!("{label}: {verdict:?}"),
            }
        }
    }

    #[test]
    fn the_shell_turns_the_link_and_writes_the_name() {
        let place = TextFile::with("Etc/UTC\n", 0o644);
        let zone = Some(stat(FileType::File, 0o644));
        let seen = seen(link_to("/usr/share/zoneinfo/Etc/UTC"), Some("Etc/UTC\n"), zone, true);
        let Verdict::Differs(change) = build("timezone", "name = 'Europe/Madrid'").diff(&seen).unwrap()
        else {
            panic!("differs")
        };
        let folder = place.folder().to_str().unwrap();
        let script = change
            .shell
            .replace("path=/etc/timezone folder=/etc", &format!("path={} folder={folder}", place.path()))
            .replace("/etc/", &format!("{folder}/"));
        run_as_me(&script).unwrap();
        run_as_me(&script).expect("twice is harmless");
        assert_eq!(place.read(), "Europe/Madrid\n");
        let link = std::fs::read_link(place.folder().join("localtime")).unwrap();
        assert_eq!(link.to_str().unwrap(), "/usr/share/zoneinfo/Europe/Madrid");
    }

    #[test]
    fn mistakes_are_found_offline() {
        for name in ["", "/etc/passwd", "../../etc/passwd", "Europe/", "Etc/UTC x"] {
            let error = mistake("timezone", &format!("name = '{name}'"));
            assert!(error.contains("is not a time zone's name"), "{name}: {error}");
        }
    }
}
