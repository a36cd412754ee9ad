# The same for 64-bit ARM, without a TPM.
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
      lan.subnets = [ "10.0.2.0/24" ];
      ssh.enable = true;
    };

    boot = {
      splash = false;
      # The passphrase prompt and the messages go to the serial line too.
      kernelParams = [
        "console=tty0"
        "console=ttyAMA0,115200"
      ];
    };
    sleep.suspend = false;
  };
}
