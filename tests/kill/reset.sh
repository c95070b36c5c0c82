# Takes back all that a run of tests/kill.rs has done to a machine, without datahub. POSIX sh, run as root.
set -u
systemctl stop kill-still.service kill-lister.service kill-late.service
# Those that a run has not got to are none of systemd's.
systemctl stop kill-own.service kill-plain.service kill-tick.timer kill-agent.service 2>/dev/null
if dpkg-query -s kill-agent >/dev/null 2>&1; then
    dpkg --force-unsafe-io --purge kill-agent >/dev/null || exit 1
fi
cd /etc/systemd/system || exit 1
rm -rf kill-own.service kill-plain.service kill-tick.* kill-agent.service.d kill-still.service.d \
    multi-user.target.wants/kill-own.service multi-user.target.wants/kill-plain.service \
    multi-user.target.wants/kill-agent.service timers.target.wants/kill-tick.timer
rmdir timers.target.wants 2>/dev/null
rm -rf /etc/kill-agent.conf* /etc/kill /srv/kill /etc/sysctl.d/90-kill.conf /etc/ssh/sshd_config.d/20-kill.conf
rm -rf /var/lib/datahub /run/datahub /run/kill /var/lib/kill/*
tar -C / -xf /root/before.tar
if id app >/dev/null 2>&1; then userdel -rf app 2>/dev/null; fi
if getent group keepers >/dev/null; then groupdel keepers; fi
echo 0 >/proc/sys/net/ipv4/conf/all/log_martians
systemctl daemon-reload
systemctl start kill-still.service kill-lister.service
systemctl reload ssh.service
# It opens its port anew, after systemctl has returned.
sleep 0.3
