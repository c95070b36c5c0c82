# Takes back all that a run of tests/kill.rs has done to a machine, without datahub. POSIX sh, run as root.
set -u
for unit in kill-own.service kill-plain.service kill-tick.timer; do
    [ ! -e "/etc/systemd/system/$unit" ] || systemctl -q disable --now "$unit"
done
if dpkg-query -s kill-agent >/dev/null 2>&1; then
    dpkg --force-unsafe-io --purge kill-agent >/dev/null || exit 1
fi
systemctl stop kill-still.service kill-lister.service
rm -rf /etc/systemd/system/kill-own.service /etc/systemd/system/kill-plain.service \
    /etc/systemd/system/kill-tick.* /etc/systemd/system/kill-agent.service.d \
    /etc/systemd/system/kill-still.service.d /etc/kill-agent.conf* /etc/kill /srv/kill \
    /etc/sysctl.d/90-kill.conf /etc/ssh/sshd_config.d/20-kill.conf
rm -rf /var/lib/datahub /run/datahub /run/kill /var/lib/kill/*
tar -C / -xf /root/before.tar
if id app >/dev/null 2>&1; then userdel -rf app 2>/dev/null; fi
if getent group keepers >/dev/null; then groupdel keepers; fi
echo 0 >/proc/sys/net/ipv4/conf/all/log_martians
systemctl daemon-reload
systemctl reset-failed
systemctl start kill-still.service kill-lister.service
systemctl reload ssh.service
# It opens its port anew, after systemctl has returned.
sleep 0.3
