# Prints what a machine of tests/kill.rs is, a line `key<TAB>value` each. Keys begin with what they are about;
# `time` is in microseconds since 1970. POSIX sh, run as root, by ssh.
set -u
say() { printf '%s\t%s\n' "$1" "$2"; }

# Every file that a run may write or leave behind; not what machines are told apart by, nor what tools keep of the
# state before their last change.
for top in /etc /srv /usr/local /home /opt /root /tmp /var/lib/kill /var/lib/datahub /run/datahub; do
    [ ! -e "$top" ] || find "$top" -xdev \
        ! -path '/etc/*-' ! -path '/etc/ssh/ssh_host_*' ! -path '/etc/systemd/network/10-lab.network' \
        ! -path /etc/machine-id ! -path /etc/hostname ! -path /etc/hosts ! -path /etc/resolv.conf \
        ! -path '/tmp/systemd-private-*' ! -path '/srv/archive/*' ! -path '/root/before.tar' \
        \( -printf 'file %p\t%y %m %u:%g %l\n' \) \
        \( ! -type f -o ! -path '/run/*' ! -path /etc/kill/token -exec sha256sum {} + \) 2>/dev/null |
        sed 's/^\([0-9a-f]\{64\}\)  \(.*\)$/sum \2\t\1/'
done | sort

say 'packages' "$(dpkg-query -W -f '${Package} ${db:Status-Abbrev} ${Version}\n' | sha256sum)"
say 'package kill-agent' "$(dpkg-query -W -f '${db:Status-Abbrev} ${Version}' kill-agent 2>/dev/null)"
say 'packages half done' "$(dpkg --audit; ls /var/lib/dpkg/updates)"
say 'account app' "$(getent passwd app; id app 2>/dev/null; getent group keepers)"
say 'sysctl log_martians' "$(cat /proc/sys/net/ipv4/conf/all/log_martians)"
say 'sshd' "has read ${KILL_SEEN-nothing}"
say 'token' "$(wc -c </etc/kill/token 2>/dev/null)"

for unit in kill-agent.service kill-own.service kill-plain.service kill-late.service kill-lister.service kill-still.service \
    kill-tick.timer kill-tick.service; do
    properties=$(systemctl show -p LoadState -p ActiveState -p SubState -p UnitFileState -p NeedDaemonReload \
        -p DropInPaths -p Description -p Result -- "$unit" | sort | tr '\n' ' ')
    say "unit $unit" "$properties"
    since=$(systemctl show --timestamp=us+utc -P ActiveEnterTimestamp -- "$unit")
    [ -z "$since" ] || say "time $unit" "$(date -d "$since" +%s%6N)"
done
for file in /run/kill/*; do
    [ ! -e "$file" ] || say "service ${file#/run/kill/}" "$(tr '\n' ' ' <"$file")"
done
for file in /etc/kill-agent.conf /etc/systemd/system/kill-agent.service.d/10-flavour.conf /etc/kill/own.conf \
    /srv/kill/built /etc/kill/last.conf /etc/kill/plain.conf /etc/kill/late.conf; do
    [ ! -e "$file" ] || say "time $file" "$(stat -c %.6Z "$file" | tr -d .)"
done
say 'id kill-still.service' "$(systemctl show -P InvocationID kill-still.service)"
say 'id kill-lister.service' "$(systemctl show -P InvocationID kill-lister.service)"

# Processes of a run, except for what waits a minute to take back a change that nobody confirms.
for try in 1 2 3 4 5 6 7 8 9 10; do
    left=
    for process in /proc/[0-9]*; do
        case ${process#/proc/} in $$ | $PPID) continue ;; esac
        command=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline")
        case $command in
        *'sleep 60; exec 9>>'*) ;;
        *datahub* | 'sh -s '* | sudo* | flock*) left="$left$command; " ;;
        esac
    done
    [ -n "$left" ] || break
    sleep 0.2
done
say 'processes' "$left"
