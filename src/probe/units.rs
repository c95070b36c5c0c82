//! Units: what systemd knows of them.

use super::Unit;
use crate::shell::quote_all;

const UNIT_PROPERTIES: [&str; 13] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "FragmentPath",
    "Result",
    "Type",
    "RemainAfterExit",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "CPUUsageNSec",
];

/// The command that prints a block for [`read_unit`] about each of the units, in their order.
pub(super) fn command(names: &[&str]) -> String {
    format!(
        "systemctl show {} -- {}",
        UNIT_PROPERTIES.map(|property| format!("-p {property}")).join(" "),
        quote_all(names)
    )
}

pub(super) fn read_unit(block: &str) -> Unit {
    let mut unit = Unit::default();
    let (mut remains, mut met, mut tried) = (false, false, false);
    for (key, value) in block.lines().filter_map(|l| l.split_once('=')) {
        let value = value.to_owned();
        match key {
            "LoadState" => unit.load = value,
            "ActiveState" => unit.active = value,
            "UnitFileState" => unit.enabled = value,
            "NeedDaemonReload" => unit.needs_daemon_reload = value == "yes",
            "FragmentPath" => unit.path = value,
            "Id" => unit.id = value,
            "SubState" => unit.sub = value,
            "Result" => unit.result = value,
            "Type" => unit.oneshot = value == "oneshot",
            "RemainAfterExit" => remains = value == "yes",
            "ConditionResult" => met = value == "yes",
            "ConditionTimestampMonotonic" => tried = value != "0",
            // `[not set]` where it is not counted.
            "CPUUsageNSec" => unit.processor = value.parse().ok(),
            _ => {}
        }
    }
    unit.oneshot &= !remains;
    unit.condition = tried.then_some(met);
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_as_systemctl_writes_them() {
        let seen = read_unit(
            "Type=oneshot\nRemainAfterExit=no\nResult=success\nId=a.service\nLoadState=loaded\nActiveState=inactive\n\
             SubState=dead\nFragmentPath=/etc/systemd/system/a.service\nUnitFileState=static\nNeedDaemonReload=yes\n\
             ConditionResult=no\nConditionTimestampMonotonic=545022520\nCPUUsageNSec=12345678",
        );
        let expected = Unit {
            load: "loaded".into(),
            active: "inactive".into(),
            enabled: "static".into(),
            needs_daemon_reload: true,
            path: "/etc/systemd/system/a.service".into(),
            id: "a.service".into(),
            sub: "dead".into(),
            result: "success".into(),
            oneshot: true,
            condition: Some(false),
            processor: Some(12_345_678),
        };
        assert_eq!(seen, expected);
        let never = read_unit(
            "Type=oneshot\nRemainAfterExit=yes\nConditionResult=no\nConditionTimestampMonotonic=0\n\
             CPUUsageNSec=[not set]",
        );
        assert_eq!((never.oneshot, never.condition, never.processor), (false, None, None));
    }
}
