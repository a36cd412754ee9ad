# bash with a long history, which survives the reset, and completion.
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

  config = lib.mkIf settings.apps.bash (
    lib.mkMerge [
      {
        programs.bash = {
          completion.enable = true;
          shellAliases = {
            ll = "ls -l --human-readable";
            la = "ls -l --human-readable --almost-all";
          };
        };
      }

      (lib.optionalAttrs (options ? home-manager) {
        home-manager.users = lib.mkIf admin.homeManager {
          ${admin.name}.programs.bash = {
            enable = true;
            historySize = 100000;
            historyFileSize = 1000000;
            historyControl = [
              "erasedups"
              "ignorespace"
            ];
          };
        };
      })
    ]
  );
}
