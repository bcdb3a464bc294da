def make_robot_from_config(config):
    from lerobot.robots.so_follower.so_follower import SOFollower

    return SOFollower(config)
