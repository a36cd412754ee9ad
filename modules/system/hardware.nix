# Processor, firmware, GPU, Thunderbolt, and the tools of a hypervisor's guest.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.settings.hardware;
  nvidia = cfg.nvidia;
  # They are built against the kernel, and follow new ones late.
  hasPrlTools =
    options.hardware ? parallels && !(config.hardware.parallels.package.meta.broken or false);
in
{
  imports = [ ../settings.nix ];

  config = lib.mkMerge [
    {
      boot = {
        inherit (cfg) kernelModules;
        initrd.availableKernelModules = cfg.initrdModules;
      };

      hardware = {
        enableRedistributableFirmware = lib.mkDefault cfg.firmware;
        bluetooth.enable = lib.mkDefault cfg.bluetooth;
        cpu.amd.updateMicrocode = lib.mkIf (cfg.cpu == "amd") (lib.mkDefault true);
        cpu.intel.updateMicrocode = lib.mkIf (cfg.cpu == "intel") (lib.mkDefault true);
      };

      services = {
        fwupd.enable = lib.mkDefault cfg.firmware;
        # Asks before a device on the bus may read memory.
        hardware.bolt.enable = lib.mkIf cfg.thunderbolt true;
      };
    }

    (lib.mkIf nvidia.enable {
      # Means the driver, under Wayland too.
      services.xserver.videoDrivers = [ "nvidia" ];

      # The display's own driver early, for the passphrase prompt.
      boot.initrd.kernelModules = lib.mkIf (nvidia.amdgpuBusId != null) [ "amdgpu" ];

      hardware = {
        graphics.enable = true;
        nvidia = {
          inherit (nvidia) open;
          modesetting.enable = true;
          powerManagement = {
            enable = true;
            # The GPU sleeps while nothing uses it.
            finegrained = nvidia.primeOffload;
          };
          prime = lib.mkIf nvidia.primeOffload (
            {
              offload = {
                enable = true;
                enableOffloadCmd = true;
              };
              inherit (nvidia) nvidiaBusId;
            }
            // lib.optionalAttrs (nvidia.amdgpuBusId != null) { inherit (nvidia) amdgpuBusId; }
            // lib.optionalAttrs (nvidia.intelBusId != null) { inherit (nvidia) intelBusId; }
          );
        };
      };
    })

    (lib.mkIf (cfg.guest == "qemu") {
      boot.initrd.availableKernelModules = [
        "virtio_blk"
        "virtio_net"
        "virtio_pci"
        "virtio_scsi"
      ];
      services.qemuGuest.enable = true;
      services.spice-vdagentd.enable = config.settings.desktop.environment != "none";
    })

    (lib.optionalAttrs (options.hardware ? parallels) {
      hardware.parallels.enable = lib.mkIf (cfg.guest == "parallels") hasPrlTools;
    })

    (lib.mkIf (cfg.guest == "parallels") {
      warnings = lib.optional (
        !hasPrlTools
      ) "nixos-go: the Parallels guest tools are not to be had for this kernel and are left out.";
    })
  ];
}
