# Anything else that NixOS has an option for: https://search.nixos.org/options
{ pkgs, ... }:
{
  environment.systemPackages = [ pkgs.hello ];
}
