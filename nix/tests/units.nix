# The units as the modules install them, as text, for a machine with LUKS and
# programs in /bin: what the virtual machines boot.
let
  inherit (import ../lib) units;
in
{
  immutability = units.text (
    units.reset {
      deviceUnit = "dev-mapper-root.device";
      program = "/bin/initrd-reset";
    }
  );
  immutability-cleanup = units.text (units.cleanup { program = "/bin/nixos-snapshot"; });
  immutability-cleanup-timer = units.text units.cleanupTimer;
  immutability-notice = units.text (
    units.notice
    // {
      serviceConfig = units.notice.serviceConfig // {
        ExecStart = "/bin/immutability-notice";
      };
    }
  );
}
