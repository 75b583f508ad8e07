from examples.clinic.run import main

main()
