# The name of this file is the name of the machine. All options, with their
# defaults, are in nixos-go's modules/settings.nix and modules/settings/.
{
  settings = {
    # The release you install with. Stays as it is afterwards.
    stateVersion = "26.05";

    user.admin = {
      name = "me";
      fullName = "";
      email = "";
      # For SSH: the content of your ~/.ssh/id_ed25519.pub.
      authorizedKeys = [ ];
    };

    locale = {
      timeZone = "UTC";
      defaultLocale = "en_US.UTF-8";
      keyMap = "us";
      xkbLayout = "us";
    };

    disk = {
      # The disk that the installer may wipe, as `ls -l /dev/disk/by-id` has it:
      # /dev/disk/by-id/nvme-…
      device = "";
      swap = {
        enable = false;
        sizeGiB = 16;
      };
      immutability = {
        enable = true;
        # What survives a reboot, beside what every workstation needs.
        persist.paths = [ "/home/*/Projects" ];
      };
    };

    desktop.environment = "plasma-wayland";

    hardware = {
      # "amd" or "intel"
      cpu = null;
      # What the initrd needs for the disk: nixos-generate-config --show-hardware-config
      initrdModules = [
        "nvme"
        "xhci_pci"
      ];
      bluetooth = false;
    };

    # Ask the TPM for the disk's key; after the installation: nixos-tpm2 enable.
    tpm.enable = false;

    packages = {
      unfree = false;
      extra = [ "firefox" ];
    };
  };
}
