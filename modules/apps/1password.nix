# 1Password: the application, its command line, and its SSH agent (see
# settings.networking.identityAgent).
{ config, lib, ... }:
{
  imports = [ ../settings.nix ];

  config = lib.mkIf config.settings.apps.onePassword {
    programs._1password.enable = true;
    programs._1password-gui = {
      enable = true;
      # Who may unlock it, and let the command line in, by the system's own prompt.
      polkitPolicyOwners = [ config.settings.user.admin.name ];
    };
  };
}
