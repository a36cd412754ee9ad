# Boot loader: systemd-boot, or images signed by lanzaboote; the initrd.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.settings.boot;
  secure = cfg.method == "Secure-Boot";
in
{
  imports = [ ../settings.nix ];

  config = lib.mkMerge [
    {
      assertions = [
        {
          assertion = !secure || options.boot ? lanzaboote;
          message = "nixos-go: settings.boot.method Secure-Boot needs lanzaboote's NixOS module.";
        }
      ];

      boot = {
        loader = {
          systemd-boot = {
            # lanzaboote installs systemd-boot itself.
            enable = !secure;
            # Who can edit the command line has a root shell.
            editor = false;
            configurationLimit = cfg.generationLimit;
          };
          efi.canTouchEfiVariables = lib.mkDefault true;
          inherit (cfg) timeout;
        };

        initrd.systemd.enable = lib.mkDefault true;
        plymouth.enable = lib.mkDefault cfg.splash;
        kernelParams = cfg.kernelParams ++ lib.optional cfg.splash "quiet";
      };
    }

    (lib.optionalAttrs (options.boot ? lanzaboote) {
      boot.lanzaboote = lib.mkIf secure {
        enable = true;
        inherit (cfg) pkiBundle;
      };
    })
  ];
}
