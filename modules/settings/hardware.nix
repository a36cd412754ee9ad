# What the machine is made of.
{ lib, ... }:
let
  enable =
    what:
    lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether the machine has ${what}.";
    };
  modules =
    what:
    lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = what;
    };
  # A PCI address as the X server writes it.
  busId =
    gpu:
    lib.mkOption {
      type = lib.types.nullOr (lib.types.strMatching "PCI:[0-9]+(@[0-9]+)?:[0-9]+:[0-9]+");
      default = null;
      example = "PCI:1@0:0:0";
      description = "Address of ${gpu}, in decimal, from `lspci`.";
    };
in
{
  options.settings.hardware = {
    cpu = lib.mkOption {
      type = lib.types.nullOr (
        lib.types.enum [
          "amd"
          "intel"
        ]
      );
      default = null;
      description = "Maker of the processor, for microcode, virtualisation and IOMMU.";
    };

    guest = lib.mkOption {
      type = lib.types.nullOr (
        lib.types.enum [
          "qemu"
          "parallels"
        ]
      );
      default = null;
      description = "The hypervisor, where the machine is a virtual one.";
    };

    firmware = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether redistributable firmware and firmware updates (fwupd) are there.";
    };

    initrdModules = modules "Kernel modules that the disk and the keyboard need at boot.";
    kernelModules = modules "Kernel modules that are loaded after the boot.";

    bluetooth = enable "Bluetooth";
    thunderbolt = enable "Thunderbolt or USB4 ports";

    nvidia = {
      enable = enable "an NVIDIA GPU that the host itself uses";

      open = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether to use the open kernel modules (Turing and newer).";
      };

      primeOffload = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = ''
          Whether the display hangs on the processor's GPU and programs use the
          NVIDIA GPU on demand (`nvidia-offload PROGRAM`).
        '';
      };

      nvidiaBusId = busId "the NVIDIA GPU";
      amdgpuBusId = busId "the AMD GPU with the display";
      intelBusId = busId "the Intel GPU with the display";
    };
  };
}
