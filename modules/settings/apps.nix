# Applications: each has a module of its own, off until it is asked for.
{ lib, ... }:
let
  enable =
    default: what:
    lib.mkOption {
      type = lib.types.bool;
      inherit default;
      description = "Whether to set up ${what}.";
    };
in
{
  options.settings.apps = {
    onePassword = enable false "1Password, its browser helper and its SSH agent";
    bash = enable true "bash: history, prompt, completion";
    git = enable true "git, with the admin's name";
    plasma = enable true "the admin's Plasma, where Plasma is the desktop";
    vscode = enable false "Visual Studio Code";
    sunshine = enable false "Sunshine, which streams the desktop to the LAN";
    mullvad = enable false "the Mullvad VPN";
    openrgb = enable false "OpenRGB";
    podman = enable false "Podman";
    printing = enable false "printing (CUPS)";

    virt = {
      enable = enable false "virtual machines: libvirt, QEMU, a software TPM";

      vfio = enable false "what handing a GPU to a guest needs: IOMMU and VFIO";

      lookingGlass = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether to install the Looking Glass client and its shared memory.";
      };
    };
  };
}
