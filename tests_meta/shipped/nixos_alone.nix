# One NixOS module evaluated alone: what of nixpkgs' lib, utils and module system the modules of this project use, and
# no more. An option without a value or a default, and a value without an option, are errors, as there.
#
# module: its path.  given: values, in the form of `config`.  Answers the module's own config, without its options.
{ module, given }:
let
  inherit (builtins)
    attrNames concatMap concatStringsSep elem filter foldl' isAttrs isBool isFunction isList isString listToAttrs map
    mapAttrs throw toJSON;

  wrong = path: throw "A definition for option `${concatStringsSep "." path}' is not of its type.";
  type = name: check: { inherit name check; };

  lib = rec {
    types = rec {
      str = type "str" isString;
      bool = type "bool" isBool;
      path = type "path" (value: isString value && builtins.substring 0 1 value == "/");
      ints.positive = type "positive" (value: builtins.isInt value && value > 0);
      nullOr = inner: type "nullOr" (value: value == null || inner.check value);
      package = type "package" isString;
      enum = values: type "enum" (value: elem value values);
      listOf = inner: type "listOf" (value: isList value && builtins.all inner.check value);
      attrsOf = inner: type "attrsOf"
        (value: isAttrs value && builtins.all (name: inner.check value.${name}) (attrNames value));
    };
    mkOption = option: option // { _type = "option"; };
    mkEnableOption = what: mkOption { type = types.bool; default = false; description = "Whether to enable ${what}."; };
    mkIf = condition: content: { _type = "if"; inherit condition content; };
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    optionalString = condition: text: if condition then text else "";
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    inherit concatStringsSep;
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
  };

  # nixos/lib/utils.nix: each word in double quotes.
  utils.escapeSystemdExecArgs = words: lib.concatMapStringsSep " " toJSON words;

  pkgs = listToAttrs (map (name: { inherit name; value = "/nix/store/00000000000000000000000000000000-${name}"; })
    [ "bash" "coreutils" "docker" "findutils" "git" "gnugrep" "gnused" "hostname" "nix" "openssh" "systemd"
    "util-linux" ]) // { runtimeShell = "/nix/store/00000000000000000000000000000000-bash/bin/bash"; };

  loaded = import module { inherit config lib pkgs utils; };

  # The options with what was given or is their default.
  filled = path: options: values:
    let unknown = filter (name: !(options ? ${name})) (attrNames values);
    in
    if unknown != [ ] then throw "The option `${concatStringsSep "." (path ++ unknown)}' does not exist."
    else mapAttrs
      (name: option:
        let
          here = path ++ [ name ];
          value = values.${name} or (option.default or (throw
            "The option `${concatStringsSep "." here}' was accessed but has no value defined."));
        in
        if (option._type or "") != "option" then filled here option (values.${name} or { })
        else if option.type.check value then value else wrong here)
      options;
  config = filled [ ] loaded.options given;

  # `mkIf` anywhere: its content or nothing.
  settled = value:
    if !isAttrs value || value ? outPath then value
    else if (value._type or "") == "if" then (if value.condition then settled value.content else { })
    else
      let kept = filter (name: !(isAttrs value.${name} && (value.${name}._type or "") == "if" && !value.${name}.condition))
        (attrNames value);
      in listToAttrs (map (name: { inherit name; value = settled value.${name}; }) kept);
in
settled loaded.config
