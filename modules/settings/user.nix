# The admin: the one person of a workstation.
{ lib, ... }:
{
  options.settings.user.admin = {
    name = lib.mkOption {
      type = lib.types.strMatching "[a-z_][a-z0-9_-]{0,30}";
      default = "admin";
      description = "Name of the admin's account.";
    };

    fullName = lib.mkOption {
      type = lib.types.str;
      default = "";
      description = "Full name, for the account and for git.";
    };

    email = lib.mkOption {
      type = lib.types.str;
      default = "";
      description = "E-mail address, for git.";
    };

    authorizedKeys = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Public SSH keys that may log in as the admin.";
    };

    extraGroups = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Groups beside those that the modules add.";
    };

    autoLogin = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = ''
        Whether the desktop starts without asking for the account's password.
        Sensible where the disk's passphrase or the TPM's PIN has been typed.
        The wallet stays locked until it is opened by hand.
      '';
    };

    autoLock = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether the screen locks when nobody is there.";
      };

      minutes = lib.mkOption {
        type = lib.types.ints.positive;
        default = 10;
        description = "Idle minutes after which the screen locks.";
      };
    };

    wallet = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether logging in opens the desktop's wallet (KWallet, GNOME Keyring).";
    };

    homeManager = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether home-manager, where it is imported, declares the admin's home.";
    };
  };
}
