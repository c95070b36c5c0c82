//! The shell that runs on a node: taking a file in, downloading one, and putting it in its place.
//!
//! Until it is whole a file is `.NAME.CHECKSUM.part` beside its destination: on the same file system, so that it
//! can be renamed, and named after its content, so that what broke off is only ever continued with the same.

use crate::probe::checksum;
use crate::shell::quote;

/// A file's destination on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'a> {
    /// Absolute, in its plainest form.
    pub path: &'a str,
    pub sha256: &'a str,
}

impl Place<'_> {
    /// Variables and functions of every script. OpenSSL, where it is there, has the processor's own instructions
    /// for checksums and takes a quarter of the time of Debian 12's sha256sum. What unfinished files of other contents there are for the same
    /// destination is removed: nobody will continue them.
    fn prelude(&self) -> String {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", self.path));
        let folder = if folder.is_empty() { "/" } else { folder };
        format!(
            r#"umask 077
path={path} folder={folder} name={name} sum={sum}
part="$folder/.$name.$sum.part"
fail() {{ printf '%s\n' "$path: $1" >&2; exit 1; }}
sum_of() {{ set -- $(openssl dgst -sha256 -r <"$1" 2>/dev/null || sha256sum <"$1"); printf '%s' "$1"; }}
[ -d "$folder" ] || fail 'its folder does not exist; declare it before the artifact'
[ ! -d "$path" ] || fail 'is a directory'
for other in "$folder/.$name".{any}.part; do [ "$other" = "$part" ] || rm -f -- "$other"; done
"#,
            path = quote(self.path),
            folder = quote(folder),
            name = quote(name),
            sum = quote(self.sha256),
            any = "?".repeat(64),
        )
    }

    /// Makes the unfinished file, `$have` bytes of it already there, or fails for lack of room. Nothing else may
    /// stand in its place.
    fn begin(&self, size: u64) -> String {
        format!(
            r#"if [ ! -f "$part" ] || [ -L "$part" ]; then
  rm -f -- "$part"; : >"$part" || fail 'cannot make a file beside it'
fi
have=$(wc -c <"$part")
if [ "$have" -gt {size} ]; then : >"$part"; have=0; fi
need=$(({size} - have)) free=$(df -B1 --output=avail -- "$folder" | tail -n 1)
free=${{free##* }}
case "$free" in *[!0-9]*|'') free=$need;; esac
if [ "$need" -gt "$free" ]; then
  rm -f -- "$part"
  fail "needs $((({size} + 1048575) / 1048576)) MiB in $folder, and only $(((free + have) / 1048576)) MiB are free"
fi
"#
        )
    }

    /// Takes the file in on standard input. Prints `HAVE CHECKSUM`, the bytes that are there already; reads a
    /// line, the number of bytes to keep of them; then the rest of the file. Prints `whole` at the end, or
    /// `broken CHECKSUM`. A file that breaks off is kept for the next time, one that cannot be written is not.
    pub fn take_in(&self, size: u64) -> String {
        let (prelude, begin) = (self.prelude(), self.begin(size));
        format!(
            r#"{prelude}{begin}is=-; [ "$have" = 0 ] || is=$(sum_of "$part")
printf '%s %s\n' "$have" "$is"
IFS= read -r keep || fail 'nothing was sent'
case "$keep" in
"$have") ;;
0) : >"$part" ;;
*) fail "was sent from byte $keep on, and $have are there" ;;
esac
cat >>"$part" || {{ rm -f -- "$part"; fail 'cannot be written'; }}
got=$(wc -c <"$part")
[ "$got" = {size} ] || fail "broke off after $got of {size} bytes; what has arrived is kept"
is=$(sum_of "$part")
if [ "$is" = "$sum" ]; then echo whole; else rm -f -- "$part"; echo "broken $is"; fi
"#
        )
    }

    /// Downloads the file on the node itself, with curl or wget. The checksum decides.
    pub fn download(&self, url: &str, size: Option<u64>) -> String {
        let prelude = self.prelude();
        let begin = match size {
            Some(size) => self.begin(size),
            None => {
                "[ -f \"$part\" ] && [ ! -L \"$part\" ] || { rm -f -- \"$part\"; : >\"$part\"; }\n".into()
            }
        };
        let url = quote(url);
        format!(
            r#"({prelude}[ ! -f "$path" ] || [ "$(sum_of "$path")" != "$sum" ] || exit 0
{begin}get() {{
  if command -v curl >/dev/null; then
    curl -fsSL --retry 5 --connect-timeout 30 --speed-limit 1 --speed-time 60 -C - -o "$part" {url}
  elif command -v wget >/dev/null; then
    wget -nv -c --tries=5 --timeout=60 -O "$part" {url}
  else
    fail 'needs curl or wget on the node; install one, or set transfer = "push"'
  fi
}}
right() {{ [ "$(sum_of "$part")" = "$sum" ]; }}
right || {{
  get; rc=$?
  # No such range, or ranges not supported: from the beginning, then.
  case $rc in 22|33|36) : >"$part"; get; rc=$?;; esac
  [ "$rc" = 0 ] || fail "cannot be downloaded; what has arrived is kept"
  right || {{ : >"$part"; get; }}
  right || {{
    is=$(sum_of "$part"); rm -f -- "$part"
    fail "what was downloaded has the checksum $is, but $sum is pinned"
  }}
}}
) || exit 1
"#
        )
    }

    /// Puts the file, which is whole, in its place: the old one is there, or the new one, at any moment, and what
    /// runs from the old one goes on. `mode` is octal. With `keep_previous` the old one stays as `PATH.previous`.
    pub fn install(&self, mode: &str, owner: &str, group: &str, keep_previous: bool) -> String {
        let prelude = self.prelude();
        let (attributes, mode) = (quote(&format!("{owner}:{group}")), quote(mode));
        let keep = if keep_previous { KEEP_PREVIOUS } else { "" };
        let remember = checksum::remember(self.path);
        format!(
            r#"({prelude}if [ -f "$part" ]; then
chown -- {attributes} "$part" || fail 'cannot set its owner'
chmod -- {mode} "$part" || fail 'cannot set its mode'
sync -- "$part" || fail 'cannot write it to the disk'
{keep}mv -fT -- "$part" "$path" || fail 'cannot put it in place'
else
# A second run of this step, after a lost connection, finds its work done.
[ -f "$path" ] && [ "$(sum_of "$path")" = "$sum" ] || fail 'was not brought; run again'
fi
{remember}) || exit 1
"#
        )
    }
}

/// A second name for the old content; where the file system has no second names, a copy.
const KEEP_PREVIOUS: &str = r#"if [ -f "$path" ] && [ ! -L "$path" ]; then
  old="$folder/.$name.previous"
  rm -f -- "$old"
  { ln -- "$path" "$old" || cp -p -- "$path" "$old"; } && mv -fT -- "$old" "$path.previous" || fail 'cannot keep the previous one'
fi
"#;
