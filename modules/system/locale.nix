# Time, language, keyboards.
{ config, lib, ... }:
let
  cfg = config.settings.locale;
in
{
  imports = [ ../settings.nix ];

  config = {
    time.timeZone = cfg.timeZone;

    i18n = {
      inherit (cfg) defaultLocale extraLocaleSettings;
    };

    console.keyMap = lib.mkDefault cfg.keyMap;

    services.xserver.xkb = {
      layout = cfg.xkbLayout;
      variant = cfg.xkbVariant;
    };
  };
}
