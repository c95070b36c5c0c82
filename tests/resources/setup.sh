# What stands on the machine before the first run: files of others, and what is to go.
set -e
mkdir -p /srv/archive /srv/old/inside /boot
echo x >/srv/old/inside/file
printf '# kept\ncolour = red\nend = yes\n' >/etc/tested.conf
printf 'verbosity=1\nextraargs=cma=128M loglevel=1\nrootdev=UUID=0b1c\n' >/boot/armbianEnv.txt
echo '192.0.2.7 camera # by hand' >>/etc/hosts
echo '/swapfile none swap sw 0 0' >>/etc/fstab
