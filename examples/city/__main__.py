from examples.city.run import main

main()
