# git, with the name and address of the admin.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (config) settings;
  admin = settings.user.admin;
  identity =
    lib.optionalAttrs (admin.fullName != "") { name = admin.fullName; }
    // lib.optionalAttrs (admin.email != "") { inherit (admin) email; };
in
{
  imports = [ ../settings.nix ];

  config = lib.mkIf settings.apps.git (
    lib.mkMerge [
      {
        programs.git = {
          enable = true;
          config = {
            init.defaultBranch = "main";
            pull.ff = "only";
          };
        };
      }

      (lib.optionalAttrs (options ? home-manager) {
        home-manager.users = lib.mkIf (admin.homeManager && identity != { }) {
          ${admin.name}.programs.git = {
            enable = true;
            settings.user = identity;
          };
        };
      })
    ]
  );
}
