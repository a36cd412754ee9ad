# Boot loader, kernel command line, TPM.
{ lib, ... }:
{
  options.settings = {
    boot = {
      method = lib.mkOption {
        type = lib.types.enum [
          "Standard-Boot"
          "Secure-Boot"
        ];
        default = "Standard-Boot";
        description = ''
          systemd-boot, or signed images by lanzaboote. Where nixos-go's flake
          makes the configurations, the target decides.
        '';
      };

      pkiBundle = lib.mkOption {
        type = lib.types.strMatching "/.+";
        default = "/var/lib/sbctl";
        description = "Folder of the Secure Boot keys, made by sbctl.";
      };

      generationLimit = lib.mkOption {
        type = lib.types.ints.positive;
        default = 10;
        description = ''
          Generations that stay in the boot menu. Each has a kernel and an
          initrd on the EFI partition.
        '';
      };

      timeout = lib.mkOption {
        type = lib.types.ints.unsigned;
        default = 3;
        description = "Seconds that the boot menu waits; 0 shows it only while a key is held.";
      };

      splash = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether Plymouth hides the boot messages and asks for the passphrase.";
      };

      kernelParams = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        description = "More kernel parameters.";
      };
    };

    tpm.enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = ''
        Whether the initrd asks the TPM2 for the disk's key, once
        `nixos-tpm2 enable` has enrolled it. The passphrase works as before.
      '';
    };
  };
}
