# The script of immutability-notice.service, as text.
let
  inherit (import ./call.nix) at call;
  modules = import ./modules.nix;
  inherit (modules.evaluate [ { settings.disk.immutability.enable = true; } ]) settings;
in
builtins.head (
  at
    [
      "systemd"
      "services"
      "immutability-notice"
      "script"
    ]
    (
      call ../../modules/system/immutability.nix {
        config = {
          inherit settings;
          programs.nixos-go = { };
        };
      }
    )
)
