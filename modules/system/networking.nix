# NetworkManager, a firewall with a set of ports for the LAN alone, SSH.
{ config, lib, ... }:
let
  cfg = config.settings.networking;
  sshPort = 22;

  lanTcp = cfg.lan.tcpPorts ++ lib.optional (cfg.ssh.enable && !cfg.ssh.public) sshPort;
  lanUdp = cfg.lan.udpPorts;

  isV6 = lib.hasInfix ":";
  braces = list: "{ ${lib.concatMapStringsSep ", " toString list} }";

  rule =
    family: subnets: protocol: ports:
    lib.optional (
      subnets != [ ] && ports != [ ]
    ) "${family} saddr ${braces subnets} ${protocol} dport ${braces (lib.unique ports)} accept";

  rulesFor =
    family: subnets: rule family subnets "tcp" lanTcp ++ rule family subnets "udp" lanUdp;
in
{
  imports = [ ../settings.nix ];

  config = {
    networking = {
      hostName = lib.mkDefault cfg.hostName;
      networkmanager.enable = lib.mkDefault true;
      nftables.enable = true;

      firewall = {
        enable = true;
        allowedTCPPorts =
          cfg.public.tcpPorts ++ lib.optional (cfg.ssh.enable && cfg.ssh.public) sshPort;
        allowedUDPPorts = cfg.public.udpPorts;
        extraInputRules = lib.concatLines (
          rulesFor "ip" (lib.filter (net: !(isV6 net)) cfg.lan.subnets)
          ++ rulesFor "ip6" (lib.filter isV6 cfg.lan.subnets)
        );
      };
    };

    services.openssh = lib.mkIf cfg.ssh.enable {
      enable = true;
      ports = [ sshPort ];
      # Opened above, for the LAN or for all.
      openFirewall = false;
      settings = {
        PermitRootLogin = "no";
        PasswordAuthentication = false;
        KbdInteractiveAuthentication = false;
        AllowUsers = [ config.settings.user.admin.name ];
        X11Forwarding = false;
        AllowAgentForwarding = false;
      };
      # authorized_keys come from the configuration, not from a file in a home.
      authorizedKeysInHomedir = false;
    };

    programs.ssh.extraConfig = lib.mkIf (cfg.identityAgent != null) ''
      Host *
        IdentityAgent "${cfg.identityAgent}"
    '';
  };
}
