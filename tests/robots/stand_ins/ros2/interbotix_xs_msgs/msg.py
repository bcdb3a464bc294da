from messages import make

JointGroupCommand = make("interbotix_xs_msgs.msg", "JointGroupCommand", name="string", cmd="sequence<float>")
JointSingleCommand = make("interbotix_xs_msgs.msg", "JointSingleCommand", name="string", cmd="float")
