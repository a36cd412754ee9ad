# What is on the screen, and what is heard.
{ config, lib, ... }:
{
  options.settings = {
    desktop = {
      environment = lib.mkOption {
        type = lib.types.enum [
          "none"
          "plasma-wayland"
          "plasma-x11"
          "gnome-wayland"
          "gnome-x11"
          "hyprland"
        ];
        default = "none";
        description = ''
          The desktop. GNOME itself no longer runs on X11: `gnome-x11` is GNOME
          Flashback with Metacity.
        '';
      };

      scaling = lib.mkOption {
        type = lib.types.numbers.between 0.5 4;
        default = 1;
        example = 1.5;
        description = "Scale of everything on the screen.";
      };
    };

    sound.enable = lib.mkOption {
      type = lib.types.bool;
      default = config.settings.desktop.environment != "none";
      defaultText = lib.literalExpression ''settings.desktop.environment != "none"'';
      description = "Whether the machine plays sound (PipeWire).";
    };
  };
}
