# Makes a fresh machine the one that tests/kill.rs starts from. POSIX sh, run as root, once.
set -eu

cat >/usr/local/bin/kill-daemon <<'END'
#!/bin/sh
# A service that reads its files once, when it starts, and writes down what it has read, and that it was started.
name=$1; shift
mkdir -p /run/kill
{ echo "flavour=${FLAVOUR-none}"; for file; do echo "$file:"; cat "$file" 2>/dev/null || echo absent; done; } >"/run/kill/$name.read"
echo started >>"/run/kill/$name.starts"
systemd-notify --ready 2>/dev/null
exec sleep infinity
END
cat >/usr/local/bin/kill-reload <<'END'
#!/bin/sh
# Reads a service's file again, and writes down that it did.
name=$1; shift
cat "$@" >"/run/kill/$name.read"
echo reloaded >>"/run/kill/$name.reloads"
END
chmod 0755 /usr/local/bin/kill-daemon /usr/local/bin/kill-reload

unit() {
    cat >"/etc/systemd/system/$1" <<END
[Unit]
Description=$2

[Service]
Type=notify
NotifyAccess=all
ExecStart=/usr/local/bin/kill-daemon $3
${4-}

[Install]
WantedBy=multi-user.target
END
}
unit kill-still.service 'Stands still' still
unit kill-lister.service 'Reads a list' 'lister /etc/kill/list.conf' \
    'ExecReload=/usr/local/bin/kill-reload lister /etc/kill/list.conf'
unit kill-late.service 'Is started too early' 'late /etc/kill/late.conf'

# A package with a service, whose postinst starts it and takes its time, from an archive that is a folder.
deb=$(mktemp -d)
mkdir -p "$deb/DEBIAN" "$deb/etc" "$deb/usr/lib/systemd/system" /srv/archive
chmod 0755 "$deb"
echo 'port = 1' >"$deb/etc/kill-agent.conf"
echo /etc/kill-agent.conf >"$deb/DEBIAN/conffiles"
cat >"$deb/usr/lib/systemd/system/kill-agent.service" <<'END'
[Unit]
Description=An agent

[Service]
Type=notify
NotifyAccess=all
ExecStart=/usr/local/bin/kill-daemon agent /etc/kill-agent.conf

[Install]
WantedBy=multi-user.target
END
cat >"$deb/DEBIAN/control" <<'END'
Package: kill-agent
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: An agent
END
cat >"$deb/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
systemctl daemon-reload
sleep 0.2
systemctl enable --now kill-agent.service
sleep 0.2
END
chmod 0755 "$deb/DEBIAN/postinst"
dpkg-deb --build --root-owner-group "$deb" /srv/archive/kill-agent.deb >/dev/null
rm -rf "$deb"
cd /srv/archive
{
    dpkg-deb -f kill-agent.deb
    echo 'Filename: ./kill-agent.deb'
    echo "Size: $(stat -c %s kill-agent.deb)"
    echo "SHA256: $(sha256sum kill-agent.deb | cut -d' ' -f1)"
} >Packages
cat >Release <<END
Suite: kill
Date: $(date -Ru)
SHA256:
 $(sha256sum Packages | cut -d' ' -f1) $(stat -c %s Packages) Packages
END
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/archive ./' >/etc/apt/sources.list
apt-get -qq update
touch /var/lib/apt/lists

mkdir -p /etc/kill/old/within /var/lib/kill
echo 'one = 1
two = 0' >/etc/kill/list.conf
echo 'as it was' >/etc/kill/mode
chmod 0600 /etc/kill/mode
touch /etc/kill/old/within/file
tar -C / -cf /root/before.tar etc/kill
systemctl daemon-reload
systemctl -q enable --now kill-still.service kill-lister.service
