# shellcheck shell=sh
# The text that people read at login when the reset of this boot has failed; no
# file when all is well. The unit immutability-notice runs it (units.nix).
report=/run/initrd-reset/report.json
notice=/run/immutability/notice
problem=
if [ ! -e "$report" ]; then
  problem="it did not run, or was cut off: there is no report"
elif ! failed=$(
  jq -r '[.volumes[]? | select(.outcome == "failed") | .name] | join(" ")' "$report"
); then
  problem="its report cannot be read"
elif [ -n "$failed" ]; then
  problem="left as they were: $failed"
elif [ "$(jq -r '.error // ""' "$report")" != "" ]; then
  problem="nothing was touched"
fi
rm -f "$notice"
[ -z "$problem" ] || cat >"$notice" <<EOF
warning: the reset at boot failed ($problem).
Nothing is lost; what should have been wiped is still there.
Why: journalctl -b -u immutability.service
Is the next one sound: sudo nixos-snapshot verify
EOF
