//! Steps that fail, hang, wait for others, or undo one another.

use std::time::{Duration, Instant};

use super::{FILE, PROVISION, Running, alpha, converges, fails, role, run, settled, wait};

#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_beside_it() {
    let content = "x".repeat(300_000);
    let file = format!("[[resource]]\n[resource.file]\npath = \"/srv/small/big\"\ncontent = \"{content}\"\n");
    let Some(lab) = alpha("full disk", &file) else { return };
    lab.sh(
        "alpha",
        "mkdir /srv/small && mount -t tmpfs -o size=64k none /srv/small && echo old >/srv/small/big",
    );
    fails(&lab, &["file /srv/small/big", "No space left on device", "role.toml:3"])
        .lacks(&["xxxxxxxxxxxxxxxxxxxx\n"]);
    assert_eq!(lab.sh("alpha", "ls -A /srv/small; cat /srv/small/big"), "big\nold");
    lab.sh("alpha", "mount -o remount,size=4m /srv/small");
    converges(&lab);

    // apt has no room for what it downloads; then dpkg has none for what it unpacks.
    role(&lab, "[[resource]]\n[resource.package]\nnames = [\"hello\"]\n");
    lab.sh("alpha", "mount -t tmpfs -o size=16k none /var/cache/apt/archives");
    fails(&lab, &["package hello", "enough free space in /var/cache/apt/archives", "role.toml:3"]);
    lab.sh("alpha", "umount /var/cache/apt/archives");
    let doc = lab.sh("alpha", "mkdir -p /usr/share/info && echo /usr/share/info");
    lab.sh("alpha", &format!("mount -t tmpfs -o size=4k none {doc} && head -c 4096 /dev/zero >{doc}/zero"));
    fails(&lab, &["package hello", "No space left on device"]);
    lab.sh("alpha", &format!("umount {doc}"));
    converges(&lab);
    lab.sh("alpha", "hello && [ -z \"$(dpkg --audit)\" ]");
}

#[test]
fn a_held_dpkg_lock_is_waited_for_and_its_holder_named() {
    let package = |seconds: u32| {
        format!("[[resource]]\n[resource.package]\nnames = [\"hello\"]\nlock_timeout_seconds = {seconds}\n")
    };
    let Some(lab) = alpha("dpkg lock", &package(4)) else { return };
    lab.sh("alpha", "apt-get -qq update");
    let holder = "setsid apt-get -q -y -o DPkg::Pre-Invoke::='touch /run/inside; sleep 300' install sl </dev/null >/dev/null 2>&1 &";
    lab.sh("alpha", holder);
    wait(&lab, "[ -e /run/inside ]");
    let pid = lab.sh(
        "alpha",
        "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = apt-get ] && echo ${p#/proc/}; done | sort -n | head -n 1",
    );
    let named = format!("held by process {pid} (apt-get)");
    let begun = Instant::now();
    fails(&lab, &["package hello", "lock-frontend", &named]);
    assert!((4..40).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());

    // One that waits longer says what it waits for, and goes on once the lock is free.
    role(&lab, &package(200));
    let mut running = Running::start(&lab);
    let said = running.until(&["\"event\":\"step\"", "\"says\"", "lock", &named]);
    // apt writes in blocks of 4 KiB.
    assert!(said < Duration::from_secs(100), "{said:?}");
    lab.sh("alpha", &format!("kill {pid}; for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = sleep ] && kill ${{p#/proc/}}; done; true"));
    running.end().status(0).has(&["\"event\":\"changed\""]);
    settled(&lab);
}

#[test]
fn resources_that_undo_one_another_are_both_named() {
    let undoing = format!(
        "{FILE}[[resource]]\n[resource.directory]\npath = \"/srv/other\"\n\
         [[resource]]\n[resource.command]\nname = \"undoes it\"\nrun = \"rm /etc/tested; touch /etc/done\"\ncreates = \"/etc/done\"\n"
    );
    let Some(lab) = alpha("undone", &undoing) else { return };
    fails(
        &lab,
        &["file /etc/tested", "it was as wanted and is not any more", "command undoes it", "role.toml:3"],
    );
    role(&lab, FILE);
    converges(&lab);

    // Each time round: neither ever holds.
    let lines = "[[resource]]\n[resource.file]\npath = \"/etc/fought-over\"\ncontent = \"v=1\\n\"\n\
         [[resource]]\n[resource.line]\npath = \"/etc/fought-over\"\nprefix = \"v=\"\nline = \"v=2\"\n";
    role(&lab, lines);
    for _ in 0..2 {
        fails(
            &lab,
            &["file /etc/fought-over: it was as wanted", "role.toml:3", "undid it: line /etc/fought-over"],
        );
    }
    role(&lab, FILE);
    converges(&lab);
}

#[test]
fn a_step_that_hangs_is_named_now_and_by_the_next_run() {
    let hangs = "[[resource]]\n[resource.command]\nname = \"hangs\"\ncreates = \"/etc/hung\"\ntimeout_seconds = 8\nlong = true\n\
         run = '''\nwhile [ -e /root/hold ]; do sleep 0.2; done\ntouch /etc/hung'''\n";
    let Some(lab) = alpha("hang", hangs) else { return };
    lab.sh("alpha", "touch /root/hold");
    let begun = Instant::now();
    fails(&lab, &["command hangs", "no answer within 8 s", "role.toml:3", "systemd-cgls"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    let mut running = Running::start(&lab);
    running.until(&["\"event\":\"step\"", "waiting for an earlier run's command hangs (process "]);
    // It is ended as the message has it; nothing else of it goes on.
    let pid = lab.sh("alpha", "cut -d' ' -f1 /run/datahub/step");
    assert!(running.seen.contains(&format!("(process {pid})")), "{pid}: {}", running.seen);
    lab.sh("alpha", &format!("kill {pid}"));
    running.until(&["\"event\":\"differs\"", "command hangs"]);
    lab.sh("alpha", "rm /root/hold");
    running.end().status(0).has(&["\"event\":\"changed\""]);
    settled(&lab);

    // A question that hangs: the guard of a command.
    role(
        &lab,
        "[[resource]]\n[resource.command]\nname = \"asks\"\nrun = \"touch /etc/asked\"\nunless = \"touch /run/asking; [ ! -e /root/hold ] || sleep 600; [ -e /etc/asked ]\"\n",
    );
    lab.sh("alpha", "touch /root/hold");
    let begun = Instant::now();
    let ended = run(&lab, PROVISION);
    ended.status(1).has(&[
        "alpha",
        "could not look at the node",
        "no answer within 120 s",
        "may hang",
        "command asks",
    ]);
    assert!(begun.elapsed() < Duration::from_secs(140), "{:?}", begun.elapsed());
    lab.sh("alpha", "rm /root/hold");
    converges(&lab);
}

#[test]
fn a_short_step_that_timed_out_goes_on_without_its_connection() {
    // Under sudo, which might take the end of the connection for its own.
    let hangs = "[[resource]]\n[resource.command]\nname = \"hangs\"\ncreates = \"/etc/hung\"\ntimeout_seconds = 4\n\
         run = '''\nwhile [ -e /root/hold ]; do echo on; sleep 0.2; done\ntouch /etc/hung'''\n";
    let Some(lab) = alpha("short", hangs) else { return };
    lab.sh("alpha", "touch /root/hold");
    fails(&lab, &["command hangs", "no answer within 4 s", "role.toml:3", "systemd-cgls"]);

    std::thread::sleep(Duration::from_secs(3));
    let mut running = Running::start(&lab);
    running.until(&["\"event\":\"step\"", "waiting for an earlier run's command hangs (process "]);
    lab.sh(
        "alpha",
        "[ -d /proc/$(cut -d' ' -f1 /run/datahub/step) ] && systemd-cgls | grep -q 'sh -s' && rm /root/hold",
    );
    // It has come to its end by itself: nothing is left to do.
    running.end().status(0).has(&["\"changed\":0"]);
    settled(&lab);
}

#[test]
fn a_service_that_ends_soon_after_its_start_fails_the_run() {
    let service = |ends: &str| {
        format!(
            "[[resource]]\n[resource.unit]\nname = \"brief.service\"\nstarted = true\n\
             content = \"[Service]\\nExecStart=/bin/sh -c 'timeout 0.4 yes >/dev/null; {ends}'\\n\"\n{FILE}"
        )
    };
    let Some(lab) = alpha("brief", &service("exit 3")) else { return };
    for (ends, why) in [("exit 3", "failed right after its start"), ("exit 0", "ended right after its start")]
    {
        role(&lab, &service(ends));
        // What stands behind it does not wait for it to settle; nor is it taken for done while it is at work.
        fails(&lab, &["unit brief.service", why, "role.toml:3"]);
        assert_eq!(lab.sh("alpha", "cat /etc/tested"), "tested");
        lab.sh("alpha", "systemctl stop brief.service; rm /etc/tested");
    }
    role(&lab, &service("exec sleep infinity"));
    converges(&lab);
    assert_eq!(lab.sh("alpha", "systemctl is-active brief.service"), "active");
}
