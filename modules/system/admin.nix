# The admin's account, sudo, and the frame for home-manager.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (config) settings;
  admin = settings.user.admin;
in
{
  imports = [ ../settings.nix ];

  config = lib.mkMerge [
    {
      users = {
        # Passwords come from the secrets folder alone: one changed by passwd
        # would be gone with the next reset.
        mutableUsers = false;

        users.${admin.name} = {
          isNormalUser = true;
          description = admin.fullName;
          inherit (settings.secrets) hashedPasswordFile;
          extraGroups = [
            "wheel"
            "networkmanager"
          ]
          ++ admin.extraGroups;
          openssh.authorizedKeys.keys = admin.authorizedKeys;
        };

        # Root has no password: the admin uses sudo.
        users.root.hashedPassword = "!";
      };

      security.sudo.execWheelOnly = true;

      # Accounts of services have no business with the Nix daemon.
      nix.settings.allowed-users = [ "@users" ];

      services.getty.autologinUser = lib.mkIf (
        admin.autoLogin && settings.desktop.environment == "none"
      ) admin.name;
    }

    (lib.optionalAttrs (options ? home-manager) {
      home-manager = lib.mkIf admin.homeManager {
        useGlobalPkgs = lib.mkDefault true;
        useUserPackages = lib.mkDefault true;
        # A file that stands where home-manager wants to put one is moved.
        backupFileExtension = lib.mkDefault "before-home-manager";
        users.${admin.name}.home.stateVersion = lib.mkDefault config.system.stateVersion;
      };
    })
  ];
}
