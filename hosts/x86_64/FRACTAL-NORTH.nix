# A workstation: AMD processor with the displays on its own GPU, an RTX 4090
# for computing, games and guests, one NVMe disk.
#
#   partition table
#   ├─ disk-main-esp    1 GiB  /boot        FAT
#   └─ disk-main-luks   rest   LUKS2 → /dev/mapper/root, BTRFS
#      ├─ @root       /             reset at every boot
#      ├─ @home       /home         reset at every boot
#      ├─ @nix        /nix
#      ├─ @var        /var
#      ├─ @snapshots  /.snapshots
#      └─ @swap       /.swap        swap file
{
  settings = {
    stateVersion = "26.05";

    user.admin = {
      name = "admin";
      # Nobody reaches the desktop without the TPM's PIN or the passphrase.
      autoLogin = true;
    };

    disk = {
      device = "/dev/nvme0n1";

      swap = {
        enable = true;
        sizeGiB = 64;
      };

      subvolumes.var = {
        name = "@var";
        mountPoint = "/var";
        # The hash of the password is read from there before anybody logs in.
        neededForBoot = true;
      };

      immutability = {
        enable = true;
        persist.paths = [
          "/home/*/Projects"
          "/home/*/Games"
        ];
        persist.exclude = [ "/home/*/Projects/*/node_modules" ];
      };
    };

    # Installed with the target Standard-Boot, then booted by Secure-Boot.
    tpm.enable = true;
    sleep.hibernate = true;

    hardware = {
      cpu = "amd";
      initrdModules = [
        "nvme"
        "xhci_pci"
        "usbhid"
        "thunderbolt"
      ];
      bluetooth = true;
      thunderbolt = true;
      nvidia = {
        enable = true;
        primeOffload = true;
        nvidiaBusId = "PCI:1:0:0";
        amdgpuBusId = "PCI:13:0:0";
      };
    };

    desktop = {
      environment = "plasma-wayland";
      scaling = 1.5;
    };

    networking = {
      lan.subnets = [ "192.168.1.0/24" ];
      ssh.enable = true;
    };

    packages = {
      unfree = true;
      extra = [ "firefox" ];
    };

    apps = {
      onePassword = true;
      vscode = true;
      sunshine = true;
      mullvad = true;
      openrgb = true;
      podman = true;
      virt = {
        enable = true;
        vfio = true;
      };
    };
  };
}
