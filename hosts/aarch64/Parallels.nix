# A desktop in a virtual machine on a Mac, under Parallels.
{
  settings = {
    stateVersion = "26.05";

    disk = {
      device = "/dev/sda";
      immutability.enable = true;
    };

    hardware = {
      guest = "parallels";
      firmware = false;
    };

    desktop = {
      environment = "plasma-wayland";
      scaling = 2;
    };

    networking = {
      # Parallels' shared network.
      lan.subnets = [ "10.211.55.0/24" ];
      ssh.enable = true;
    };

    # The Parallels guest tools.
    packages.unfree = true;
    sleep.suspend = false;
  };
}
