# Virtual machines: libvirt, QEMU, a software TPM, and handing a GPU over.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (config) settings;
  cfg = settings.apps.virt;
  admin = settings.user.admin;
in
{
  imports = [ ../settings.nix ];

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        virtualisation.libvirtd = {
          enable = true;
          # Guests start when they are asked to, and are shut down properly.
          onBoot = "ignore";
          onShutdown = "shutdown";
          qemu = {
            package = pkgs.qemu_kvm;
            swtpm.enable = true;
          };
        };
        virtualisation.spiceUSBRedirection.enable = true;
        programs.virt-manager.enable = settings.desktop.environment != "none";

        users.users.${admin.name}.extraGroups = [
          "kvm"
          "libvirtd"
        ];

        # DHCP and DNS for guests on libvirt's own network.
        networking.firewall.trustedInterfaces = [ "virbr0" ];
      }

      (lib.mkIf cfg.vfio {
        # gpu-vfio takes the device at run time, so none is named here.
        boot.kernelModules = [
          "vfio"
          "vfio_iommu_type1"
          "vfio_pci"
        ];
        boot.kernelParams = lib.optional (settings.hardware.cpu == "intel") "intel_iommu=on" ++ [
          "iommu=pt"
        ];
      })

      (lib.mkIf cfg.lookingGlass {
        environment.systemPackages = [ pkgs.looking-glass-client ];
        systemd.tmpfiles.rules = [ "f /dev/shm/looking-glass 0660 ${admin.name} kvm -" ];
      })
    ]
  );
}
