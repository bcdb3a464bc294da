from messages import make

Vector3 = make("geometry_msgs.msg", "Vector3", x="double", y="double", z="double")
Twist = make("geometry_msgs.msg", "Twist", linear=Vector3, angular=Vector3)
