# A desktop in a virtual machine on a Mac, under UTM.
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

    desktop = {
      environment = "plasma-wayland";
      scaling = 2;
    };

    networking = {
      # UTM's shared network.
      lan.subnets = [ "192.168.64.0/24" ];
      ssh.enable = true;
    };

    sleep.suspend = false;
  };
}
