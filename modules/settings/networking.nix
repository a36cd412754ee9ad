# Name, firewall, SSH.
{ config, lib, ... }:
let
  ports =
    what:
    lib.mkOption {
      type = lib.types.listOf lib.types.port;
      default = [ ];
      description = what;
    };
in
{
  options.settings.networking = {
    hostName = lib.mkOption {
      type = lib.types.strMatching "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
      default = "nixos";
      description = "The machine's name; a flake of hosts sets it from the file's.";
    };

    lan = {
      subnets = lib.mkOption {
        type = lib.types.listOf (lib.types.strMatching "[0-9a-fA-F.:]+/[0-9]+");
        default = [ ];
        example = [ "192.168.1.0/24" ];
        description = "The networks at home. With none, the ports for the LAN are closed to all.";
      };

      tcpPorts = ports "TCP ports that are open to the LAN alone.";
      udpPorts = ports "UDP ports that are open to the LAN alone.";
    };

    public = {
      tcpPorts = ports "TCP ports that are open to everybody.";
      udpPorts = ports "UDP ports that are open to everybody.";
    };

    ssh = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether one can log in by SSH: keys only, never root.";
      };

      public = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether SSH is open to everybody instead of the LAN alone.";
      };
    };

    identityAgent = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = if config.settings.apps.onePassword then "~/.1password/agent.sock" else null;
      defaultText = lib.literalExpression "1Password's, where it is set up";
      description = "Socket of the agent that holds the admin's SSH keys.";
    };
  };
}
