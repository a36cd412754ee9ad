# A virtual machine under QEMU, for trying the whole from installer to reset.
{
  settings = {
    stateVersion = "26.05";

    disk = {
      device = "/dev/vda";
      immutability.enable = true;
    };

    hardware = {
      guest = "qemu";
      firmware = false;
    };

    networking = {
      # QEMU's own network, where the host is 10.0.2.2.
      lan.subnets = [ "10.0.2.0/24" ];
      ssh.enable = true;
    };

    tpm.enable = true;
    boot = {
      splash = false;
      # The passphrase prompt and the messages go to the serial line too.
      kernelParams = [
        "console=tty0"
        "console=ttyS0,115200"
      ];
    };
    sleep.suspend = false;
  };
}
