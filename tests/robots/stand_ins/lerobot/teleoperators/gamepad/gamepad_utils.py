class GamepadController:
    pass
