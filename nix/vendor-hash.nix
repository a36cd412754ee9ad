"sha256-/XfnQeu/tBG8dKM0QBSyKFxrAN/wwI3pJCgsdhbXhgQ="
