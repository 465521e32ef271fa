#!/bin/sh
# Makes the image nginx:1 of Debian's nginx and of the tools that an intruder would look for, from the host's own
# programs: AppArmor matches resolved paths, so links to one BusyBox would prove nothing.
set -eu
root=$(mktemp -d)
for link in bin sbin lib lib64; do
  if [ -L "/$link" ]; then
    mkdir -p "$root/usr/$link"
    ln -s "usr/$link" "$root/$link"
  fi
done
mkdir -p "$root/etc" "$root/root" "$root/tmp" "$root/run" "$root/var/lib/nginx" "$root/var/log/nginx" "$root/var/www/html"
copy() {
  while read -r path; do
    mkdir -p "$root/$(dirname "$path")"
    [ -e "$root/$path" ] || cp -L "$path" "$root/$path"
  done
}
for program in /usr/sbin/nginx /usr/bin/dash /usr/bin/env /usr/bin/ping /usr/bin/top /usr/bin/touch /usr/bin/cat; do
  echo "$program" | copy
  ldd "$program" | grep -o '/[^ )]*' | copy
done
ln -s dash "$root/usr/bin/sh"
for terminals in /usr/share/terminfo /lib/terminfo; do  # without them top says nothing
  if [ -d "$terminals" ]; then
    mkdir -p "$root$terminals"
    cp -r "$terminals/." "$root$terminals"
  fi
done
find /usr/lib -name 'libnss_files*' | head -n 1 | copy
grep -E '^(root|www-data|nobody):' /etc/passwd >"$root/etc/passwd"
grep -E '^(root|www-data|nogroup|adm):' /etc/group >"$root/etc/group"
echo hello >"$root/var/www/html/index.html"
cat >"$root/etc/nginx.conf" <<'CONF'
user www-data;
error_log stderr;
pid /run/nginx.pid;
events {}
http {
  access_log off;
  server { listen 80; root /var/www/html; }
}
CONF
tar -C "$root" -cf "$root.tar" .
docker import --change 'CMD ["nginx", "-c", "/etc/nginx.conf", "-g", "daemon off;"]' \
  --change 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb' "$root.tar" nginx:1
rm -r "$root" "$root.tar"
