# PipeWire, for everything that expects ALSA, PulseAudio or JACK.
{ config, lib, ... }:
{
  imports = [ ../settings.nix ];

  config = lib.mkIf config.settings.sound.enable {
    security.rtkit.enable = true;
    services.pulseaudio.enable = false;

    services.pipewire = {
      enable = true;
      alsa.enable = true;
      pulse.enable = true;
      jack.enable = true;
    };
  };
}
